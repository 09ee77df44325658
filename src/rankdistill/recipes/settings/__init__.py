"""The settings of each method, one file a method: a function of (teacher, student) that returns a `Setting`."""

from collections.abc import Callable

from ..setting import Setting
from . import cald, crld, dot, kd, lskd_mlkd, mlkd, plain, ra, takd

SETTINGS: dict[str, Callable[[str, str], Setting]] = {
    "plain": plain.setting,
    "kd": kd.setting,
    "ra": ra.setting,
    "mlkd": mlkd.setting,
    "lskd_mlkd": lskd_mlkd.setting,
    "crld": crld.setting,
    "cald": cald.setting,
    "dot": dot.setting,
    "takd": takd.setting,
}
"""Recipe name -> function of the names of teacher and student."""

__all__ = ["SETTINGS"]
