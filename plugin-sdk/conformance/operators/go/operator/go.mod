module conformance

go 1.25

require wasmill v0.0.0

replace wasmill => ../../../../go/wasmill
