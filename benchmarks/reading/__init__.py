"""Reading benchmarks: data_shards against its limits and its peers. ``README.md`` says how."""
