"""De-identification of DICOM by PS3.15 Annex E, and the search for text that is burned into pictures.

Modules are loaded by whoever needs them: pydicom costs a second, and most of what imports core meets no DICOM.
"""
