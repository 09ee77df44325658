"""The settings of each method, one file a method: a function of (teacher, student) that returns a `Setting`."""

from collections.abc import Callable

from ..setting import Setting
from . import catkd, fcfd, kd, norm, norm_kd, plain, ra, simkd

SETTINGS: dict[str, Callable[[str, str], Setting]] = {
    "plain": plain.setting,
    "catkd": catkd.setting,
    "fcfd": fcfd.setting,
    "kd": kd.setting,
    "norm": norm.setting,
    "norm_kd": norm_kd.setting,
    "ra": ra.setting,
    "simkd": simkd.setting,
}
"""Recipe name -> function of the names of teacher and student."""

__all__ = ["SETTINGS"]
