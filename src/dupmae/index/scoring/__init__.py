"""The duplex score over stored segments: exact, approximate, explained."""
