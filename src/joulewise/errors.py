"""Everything that joulewise raises on purpose.

JoulewiseError
├── LayoutError     named tensors that do not fit the layout
├── UpdateError     an update with NaN, infinity or the wrong length
├── CostError       prices that are not positive and finite
├── RuleError       a rule and a budget that do not go together, or a bad setting of one
├── PayloadError    bytes that are not a payload of this layout
├── StateError      client state that belongs to another model or run
├── ProfileError    a device file that is wrong or not there
├── ModelError      a model or an update that cannot be read
├── DataError       a dataset that is not there, or partitions that cannot be made
├── ComputeError    a processor that this machine does not have
├── StudyError      a study file that is wrong
├── SettingError    a setting of a Flower run or node that is wrong
├── OutputError     an output folder or a row file that cannot be used
├── MeterError      a window of a meter that is used wrongly
├── CalibrationError a measurement of this machine that cannot be made or finished
├── KernelError     a kernel that was asked for and is not there
├── ArgumentError   an option of a command that is wrong
├── PacingError     a battery or a schedule that cannot be used
├── TraceError      a trace by round that cannot be read, or ends before the run
├── FederationError a federation that cannot go on
└── MissingExtra    an optional part that is not installed
"""


class JoulewiseError(Exception):
    """A mistake that the user can mend; its message says what came, what was expected and what to do."""


class LayoutError(JoulewiseError, ValueError):
    """Named tensors do not fit the layout."""


class UpdateError(JoulewiseError, ValueError):
    """An update holds NaN or infinity, or has the wrong length."""


class CostError(JoulewiseError, ValueError):
    """Prices are not positive, not finite, or do not fit the layout."""


class RuleError(JoulewiseError, ValueError):
    """A rule and a budget do not go together, or one of them has a setting out of range."""


class PayloadError(JoulewiseError, ValueError):
    """Bytes are not a payload of this layout."""


class StateError(JoulewiseError, ValueError):
    """Client state belongs to another model or run, or is damaged."""


class ProfileError(JoulewiseError, ValueError):
    """A device file is wrong or not there."""


class ModelError(JoulewiseError, ValueError):
    """A model or a recorded update is not there, cannot be read, or does not fit."""


class DataError(JoulewiseError, ValueError):
    """A dataset is not there, is not readable, or cannot be partitioned as asked."""


class ComputeError(JoulewiseError, ValueError):
    """This machine does not have the processor that was asked for."""


class StudyError(JoulewiseError, ValueError):
    """A study file is wrong."""


class SettingError(JoulewiseError, ValueError):
    """A setting in the configuration of a Flower run or node is wrong."""


class OutputError(JoulewiseError, OSError):
    """An output folder or a row file cannot be used."""


class MeterError(JoulewiseError, ValueError):
    """A window is closed by another meter than the one that opened it, or a window has no length."""


class CalibrationError(JoulewiseError, RuntimeError):
    """A measurement of this machine cannot be made, or cannot be finished."""


class KernelError(JoulewiseError, ImportError):
    """The C++ kernel was asked for and is not there."""


class ArgumentError(JoulewiseError, ValueError):
    """An option of a command is wrong."""


class PacingError(JoulewiseError, ValueError):
    """A battery or a schedule has a number out of range, or a round took more than it was allowed."""


class TraceError(JoulewiseError, ValueError):
    """A trace by round is not there, cannot be read, or does not last as long as the run."""


class FederationError(JoulewiseError, RuntimeError):
    """A federation cannot go on."""


class MissingExtra(JoulewiseError, ImportError):  # noqa: N818 (reads as what it is: an extra that is missing)
    """An optional part of joulewise is not installed.

    Args:
        extra: name of the extra, as in ``pip install "joulewise[report]"``.
        what: what the user wanted to do.
    """

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f'{what} needs an optional part of joulewise; run: pip install "joulewise[{extra}]"')
