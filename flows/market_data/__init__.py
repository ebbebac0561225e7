"""What the domains share: plain functions on frames and tables. Nothing here knows Prefect.

pandas and TA-Lib are imported inside the functions that need them: a deploy imports every flow, and should not wait for
what only a run uses.
"""
