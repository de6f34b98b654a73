"""What computes a network: the contract, one file per backend, and one that chooses."""

from medseg.inference.backends.contract import Backend, Member

__all__ = ["Backend", "Member"]
