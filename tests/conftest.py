"""One thread a test process: pytest runs one worker a core, and numeric libraries in each of them, and in the processes
that it starts, would else start a thread a core that spins while it waits for the others (trainings took 2.6 times the
CPU). Set before anything imports numpy or torch.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
