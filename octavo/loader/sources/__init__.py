"""Where models come from: one source per file, named as the prefix that is typed before the colon.

A file offers  FORM                  how a name of it is written, for people
               SHAPE                 the same as a pattern for what follows the colon
               fetch(rest, folder)   -> the wanted file, in `folder`; raises NotFetched, or OSError
                                     where the disk is at fault. The folder is the name's own: it
                                     holds what an attempt that was cut left there.
"""
