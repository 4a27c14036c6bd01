"""One endpoint that generates nothing per file.

A file offers  METHOD                 "GET" or "POST"
               PATHS                  where it is served
               NEEDS_KEY              False: whoever can connect may ask
               answer(engine, http)   its Response; raises OctavoErrors
               Body                   of a POST, a msgspec.Struct
               problem(error)         the envelope in which they leave
"""
