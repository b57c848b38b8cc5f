"""Words that a sentence splitter must know, a table a language: English, Polish, German, French.

table.py                                   what a table holds, and `table_of(language)`
english.py, polish.py, german.py, french.py   the words; to teach the splitter one, add it there
"""
