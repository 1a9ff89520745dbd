def write_preview(out, task, renderer):
    pass
