"""A lab of hosts that share nothing: each has its own network, file system, processes and name.

    from hosts.lab import Lab, missing
    with Lab() as lab:                                  # reason = missing() says why a machine cannot (rights, tools)
        bucket = lab.bucket()                           # an S3 server in a host of its own, s3://data, http://s3:9000
        bucket.upload(photos, "photos")
        one, two = lab.host("one"), lab.host("two")     # they know each other by name; disk_mb=..., python of this venv
        done = one.run("depthsieve", "label", "s3://data/photos", "s3://data/labels", **bucket.environment())
        print(done.returncode, done.stdout)             # stdout and stderr together; start() does not wait
        two.wire.delay_s, two.wire.loss = 0.15, 0.01    # each way; wire.up = False (no carrier), wire.muted (silence)
        two.power_off()                                 # all its processes at once

A host sees the machine's programs and this environment read-only, and a disk of its own that starts empty.
``host.path("/tmp/x")`` is a file of its disk, seen from outside; ``hosts.cluster`` has the words for Ray. Whatever ends
the process that made a lab (kill -9 too) ends all of it: nothing of a lab lies outside of its processes.
"""
