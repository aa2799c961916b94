package wasmill

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
)

const reasonBytesMax = 1000

// A Failure fails a call as a whole: nothing of it counts. Made by [Retry] and [Fatal].
type Failure struct {
	// Retry says that the call may succeed later.
	Retry  bool
	Reason string
}

func (f *Failure) Error() string { return f.Reason }

// Retry fails the call, which may succeed later.
func Retry(format string, words ...any) error { return &Failure{true, fmt.Sprintf(format, words...)} }

// Fatal fails the call, which would fail always.
func Fatal(format string, words ...any) error { return &Failure{false, fmt.Sprintf(format, words...)} }

// Reject rejects the event at hand with these words. So does any other error.
func Reject(format string, words ...any) error { return fmt.Errorf(format, words...) }

// ConfigError is what is wrong with a configuration, and where.
type ConfigError struct{ Field, Message string }

func (e *ConfigError) Error() string {
	if e.Field == "" {
		return "config: " + e.Message
	}
	return fmt.Sprintf("config: `%s`: %s", e.Field, e.Message)
}

// AsFailure is what fails a call, of any error.
func AsFailure(err error) *Failure {
	var failure *Failure
	if errors.As(err, &failure) {
		return failure
	}
	return &Failure{false, cut(err.Error())}
}

func cut(text string) string {
	if len(text) > reasonBytesMax {
		text = strings.ToValidUTF8(text[:reasonBytesMax], "")
	}
	return text
}

// caught makes an error of a panic. A failure that was panicked with stays one.
func caught(what any) error {
	if failure, ok := what.(*Failure); ok {
		return failure
	}
	stack := string(debug.Stack())
	Error(fmt.Sprintf("panic: %v\n%s", what, stack))
	return fmt.Errorf("panic: %v (at %s)", what, places(stack))
}

// places are the functions of a stack between the panic and this package.
func places(stack string) string {
	var found []string
	_, rest, _ := strings.Cut(stack, "panic(")
	for _, line := range strings.Split(rest, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "wasmill.") {
			break
		}
		if at := strings.Index(line, ".go:"); at >= 0 && !strings.Contains(line, "/runtime/") {
			line, _, _ = strings.Cut(line, " +0x")
			found = append(found, line[strings.LastIndex(line, "/")+1:])
		}
	}
	return strings.Join(found[:min(len(found), 3)], ", ")
}
