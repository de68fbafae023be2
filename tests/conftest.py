"""Everything but tests/gpu is trained on the CPU, also where there is a GPU: by the tests, and in the kernels of notebooks that
are run beside them, which inherit this."""

import os

os.environ["ACCELERATE_USE_CPU"] = "yes"
