"""The one exception that is meant for users."""


class DupmaeError(Exception):
    """Bad input or an impossible request, told in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with 2; a traceback means a defect of ours.
    """
