"""The type checker that pytest puts on the shapes and types of signatures; an int passes for a float, as in PEP 484."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
