"""Names that are public, once. `__init__.py` reads this file, and imports a name when it is first used."""

from ._version import __version__ as __version__
from .assembly import Assembled as Assembled, assemble as assemble, pair_of as pair_of
from .contract import Batch as Batch, Losses as Losses, Method as Method, Output as Output, Pair as Pair, Runs as Runs
from .methods import *  # noqa: F403, the names that methods/__init__.py imports as themselves
from .methods import METHODS as METHODS
from .models import MODELS as MODELS
from .network import Network as Network, batch_statistics as batch_statistics
from .softrank import rank_regime as rank_regime, soft_rank as soft_rank, soft_sort as soft_sort
from .taps import Staged as Staged, resume as resume, roles as roles, select_roles as select_roles
from .training.state import State as State
from .training.updates import (
    DOT as DOT,
    DOTSGD as DOTSGD,
    UPDATES as UPDATES,
    Bilevel as Bilevel,
    Descend as Descend,
    UpdateRule as UpdateRule,
    meta_gradients as meta_gradients,
)
from .weights.foreign import Checkpoint as Checkpoint, load_into as load_into, read_checkpoint as read_checkpoint
