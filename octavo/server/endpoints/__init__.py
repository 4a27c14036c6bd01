"""One endpoint per file, of those that are not in protocols/.

A file offers  METHOD                 "GET", "POST" or "DELETE"
               PATHS                  where it is served
               NEEDS_KEY              False: whoever can connect may ask
               answer(engine, http)   its Response; raises OctavoErrors
               Body                   where it reads one, a msgspec.Struct
               Query                  what may stand behind the "?", another
               problem(error)         the envelope in which they leave
"""
