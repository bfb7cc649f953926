"""Phase 1: from files to documents, with the reasons why some are left out."""
