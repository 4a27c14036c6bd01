"""One notation a file: its text becomes llguidance's, or is refused in a sentence.

FIELD    whose value it is, in octavo.SamplingParams, or what it comes of in a body
EXAMPLE  (text, an answer that it allows, one that it does not)
read     text -> llguidance's form; raises BadRequest for what would not be enforced, and
         UnicodeEncodeError for half of a surrogate pair
"""
