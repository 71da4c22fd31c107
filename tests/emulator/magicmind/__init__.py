"""An emulator of the MagicMind Python API for tests: our own code, running models on the CPU.

The folder above, put on ``sys.path`` or ``PYTHONPATH``, provides the package ``magicmind``. What each file follows is
said at its top, in the marks of the public facts of the API: **[V]** seen in public code, **[I]** inferred from how
public code uses it, **[–]** nothing public, so that what the emulator does there is its own (and strict) choice.

The environment sets up the emulated machine:

=============================== =============================================================================
``MAGICMIND_EMULATOR_DEVICES``  devices in the machine (1); ``MLU_VISIBLE_DEVICES`` hides some of them
``MAGICMIND_EMULATOR_ARCH``     their architecture (``mtp_372``)
``MAGICMIND_EMULATOR_CLUSTERS`` clusters of one device (8)
``MAGICMIND_EMULATOR_REMOTES``  ``host:port,…`` that answer as remote devices, besides the loopback addresses
``MAGICMIND_EMULATOR_PYTHON``   the interpreter that computes for those which have no torch; it needs onnx, too
``MAGICMIND_EMULATOR_FAIL``     faults, see ``magicmind.python.runtime.faults``
=============================== =============================================================================
"""
