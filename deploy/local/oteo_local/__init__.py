"""The whole of Oteo on one machine: supervisord and the embedded Triton."""
