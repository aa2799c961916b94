package shared

import "wasmill"

// Driver is the open aggregate of this component.
var Driver *wasmill.AggregateDriver
