def open_source(spec, name):
    return spec
