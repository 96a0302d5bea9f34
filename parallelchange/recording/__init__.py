"""From what was seen sent to a corpus: its transactions, without secrets, described and thinned out.

`build` is the way in. Nothing here connects to anything: the server is asked through the port `Describe`.
"""

from parallelchange.recording.build import Recording, build
from parallelchange.recording.describing import Describe, Refused
from parallelchange.recording.redact import Redaction
from parallelchange.recording.transactions import Event

__all__ = ["Describe", "Event", "Recording", "Redaction", "Refused", "build"]
