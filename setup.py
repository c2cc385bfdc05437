"""Packaging of tf_lottery. The tools' settings are in pyproject.toml."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tf_lottery/__init__.py").read_text())[1]

setuptools.setup(
    name="tf_lottery",
    version=VERSION,
    description="Lottery tickets in Keras and TensorFlow: find, keep and test winning tickets",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=setuptools.find_packages(include=["tf_lottery", "tf_lottery.*"]),
    # tools/test.sh tests the newest versions, which CI runs; tools/test.sh --lowest the lower bounds.
    # These are therefore releases with wheels for every Python above.
    install_requires=[
        "tensorflow~=2.21.0",
        "keras~=3.15.0",
        "tf_keras~=2.21.0",
        "tensorflow-model-optimization==0.8.1",
        "tensorflow-datasets~=4.9.10",
        "keras-tuner~=1.4.8",
        "absl-py>=1.4,<2",
        "ml_collections~=1.1",
        "numpy>=2.1,<3",
        "wrapt>=1.17,<3",
        "ml_dtypes>=0.5.1,<1",
        "safetensors>=0.7,<1",
        "scikit-learn>=1.5.2,<2",
        "scipy>=1.14.1,<2",
        "matplotlib>=3.9.2,<4",
        "pillow>=12.1.1,<14",
        "tqdm>=4.66.3,<5",
        "filelock>=3.20.3,<5",
        "grpcio>=1.74,<2",
        "tensorboard~=2.21.0",  # TensorFlow 2.21 no longer brings it
        "importlib_resources>=6,<8",  # tensorflow-datasets 4.9.10 imports it undeclared
        "setuptools>=78.1.1,<85",  # TF-MOT needs its distutils
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]~=2.21.0"],
        "test": [
            "pytest>=8,<10",
            "pytest-timeout>=2.3.1,<3",
            "pytest-xdist>=3.6.1,<4",
            "hypothesis>=6.100,<7",
            "keras-hub>=0.30,<1",
            "selenium>=4.20,<5",
            "ruff~=0.17.0",
            "packaging>=24,<27",
            "pip-audit>=2.10,<3",
        ],
        "fuzz": ["atheris>=3,<4"],  # of Linux on x86-64
        "benchmark": ["torch>=2.6,<3", "lottery-ticket-pruner==0.8.1"],
    },
    entry_points={"console_scripts": ["tf-lottery = tf_lottery.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
