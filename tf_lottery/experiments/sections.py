"""What a config is made of: typed sections whose entries have known names, a default and a meaning."""

import dataclasses
from typing import Any

from tf_lottery import names


def entry(default: Any, text: str) -> Any:
    """An entry of the config, with its text for `tf-lottery run --help`."""
    return dataclasses.field(default=default, metadata={"help": text})


class Section:
    """A part of the config: knows its entries, and can be frozen."""

    def __new__(cls, *_: Any, **entries: Any) -> "Section":
        for name in entries:
            cls._check_known(name)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_known(name)
        if self.__dict__.get("_frozen"):
            raise AttributeError(f"The config is frozen once a run has begun; cannot set {name!r}.")
        object.__setattr__(self, name, value)

    def freeze(self) -> None:
        """Refuses all further changes, in the sections below too."""
        self.__dict__["_frozen"] = True
        for value in vars(self).values():
            if isinstance(value, Section):
                value.freeze()

    @classmethod
    def _check_known(cls, name: str) -> None:
        if name not in cls.__dataclass_fields__:
            raise AttributeError(names.unknown(name, cls.__dataclass_fields__, "config entry"))
