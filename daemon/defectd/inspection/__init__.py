"""Pure judgement: values in, values out; no I/O, no threads, no clocks."""
