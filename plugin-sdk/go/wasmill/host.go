package wasmill

// Clock is what a timer waits by.
type Clock uint8

const (
	// EventTime is the watermark of the stage.
	EventTime Clock = iota
	// ProcessingTime is the wall clock of the host.
	ProcessingTime
)

// Level is that of a log line.
type Level uint8

// Levels of log lines.
const (
	LevelDebug Level = iota
	LevelInfo
	LevelWarn
	LevelError
)

// Host is what an operator stands on: a component's imports, or the one of package wasmilltest.
type Host interface {
	GetMany(space uint16, keys, subkeys Column) ([]uint64, Column)
	PutMany(space uint16, keys, subkeys, values Column)
	DeleteMany(space uint16, keys, subkeys Column)
	Scan(space uint16, key, start []byte, limit uint32) (Column, Column)
	Now(clock Clock) int64
	SetTimers(clock Clock, keys, tags Column, times []int64)
	DeleteTimers(clock Clock, keys, tags Column)
	Add(name string, delta uint64)
	Set(name string, value float64)
	Observe(name string, value float64)
}

// LogSink takes log lines.
var LogSink = func(Level, string) {}

// Debug logs for the author of the operator.
func Debug(message string) { LogSink(LevelDebug, message) }

// Info logs for whoever looks.
func Info(message string) { LogSink(LevelInfo, message) }

// Warn logs what is odd.
func Warn(message string) { LogSink(LevelWarn, message) }

// Error logs what is wrong.
func Error(message string) { LogSink(LevelError, message) }
