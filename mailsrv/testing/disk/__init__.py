"""A file system in memory that forgets what was not synced.

:class:`ModelDisk` does what :class:`~mailsrv.disk.RealDisk` does, keeps apart what is on disk from
what is only in the cache, and can be asked, at any moment, what a power cut would leave:

* of each file, every sector (512 octets) written since the last sync holds its old or any of its
  newer contents; its length is the old or the new one;
* of each directory, the changes since its last sync happened up to some point, in order; a rename
  between directories happened in both or in neither (as on ext4, XFS and btrfs; more than POSIX promises);
* what was synced is there. After a sync that failed, what it was to write stays in doubt for good,
  and the next sync does not say so (R-DUR-4).

Every call is one *operation* with a number. ``fail_at`` makes one of them (or all from one on)
raise, ``cut_power_at`` stops the disk at one: that call and all later ones raise
:class:`PowerCut`, and :meth:`ModelDisk.after_power_cut` gives the disk that the machine finds at
its next start. All choices come from the seed given there.

Programs that must have real files (SQLite) join through :meth:`ModelDisk.materialise`, which writes
the current state into a real directory.
"""

from mailsrv.testing.disk.faults import PowerCut
from mailsrv.testing.disk.inode import SECTOR
from mailsrv.testing.disk.model import ModelDisk, ModelFile

__all__ = ["SECTOR", "ModelDisk", "ModelFile", "PowerCut"]
