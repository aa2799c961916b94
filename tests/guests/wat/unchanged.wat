;; Passes every batch on as it is.
