"""The settings of each method, one file a method: a function of (teacher, student) that returns a `Setting`."""

from collections.abc import Callable

from ..setting import Setting
from . import crd, kd, ofd, plain, ra, reviewkd

SETTINGS: dict[str, Callable[[str, str], Setting]] = {
    "plain": plain.setting,
    "crd": crd.setting,
    "kd": kd.setting,
    "ofd": ofd.setting,
    "ra": ra.setting,
    "reviewkd": reviewkd.setting,
}
"""Recipe name -> function of the names of teacher and student."""

__all__ = ["SETTINGS"]
