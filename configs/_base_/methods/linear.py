# Linear probe: the head alone is trained.
method = dict(type='LinearProbe')
