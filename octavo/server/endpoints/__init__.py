"""One endpoint per file, of those that are not in protocols/.

A file offers  METHOD                 "GET", "POST" or "DELETE"
               PATHS                  where it is served; files of other methods may share them
               NEEDS_KEY              False: whoever can connect may ask
               answer(engine, http)   its Response; raises OctavoErrors
               Body, Form or Query    of what it is sent, a msgspec.Struct, if anything
               problem(error)         the envelope in which they leave
"""
