"""The language-model backend: causal transformers whose responses are enumerable, and the losses of every method here.

Needs the extra [lm] (torch); nothing else of mdpsim imports torch. Import the modules by name: ``mdpsim.lm.model``, ...
"""
