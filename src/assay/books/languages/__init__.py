"""Words that a sentence splitter must know, a table a language: English, Polish, German, French.

words.py                                   what a table holds
table.py                                   the table of a language, by its name
english.py, polish.py, german.py, french.py   the words; to teach the splitter one, add it there
"""
