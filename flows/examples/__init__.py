"""Every feature of Prefect in one weekly market report: the files to copy from. Begin with all_functionalities.py."""
