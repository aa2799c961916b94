package wasmill

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Config is the stage's config. The first field that is wrong fails Open, and so does one that nobody
// asked for.
type Config struct {
	order  []string
	fields map[string]json.RawMessage
	asked  []string
	err    error
}

func parseConfig(data []byte) (*Config, error) {
	config := &Config{fields: map[string]json.RawMessage{}}
	given := bytes.TrimSpace(data)
	if len(given) == 0 || string(given) == "null" {
		return config, nil
	}
	if !json.Valid(given) {
		return nil, &ConfigError{"", "it is not JSON"}
	}
	if given[0] != '{' {
		return nil, &ConfigError{"", "expected an object, found " + string(given)}
	}
	if err := json.Unmarshal(given, &config.fields); err != nil {
		return nil, &ConfigError{"", err.Error()}
	}
	// Errors name fields in the order of the text.
	decoder := json.NewDecoder(bytes.NewReader(given))
	decoder.Token()
	for decoder.More() {
		name, _ := decoder.Token()
		var skipped json.RawMessage
		if decoder.Decode(&skipped) != nil {
			break
		}
		config.order = append(config.order, fmt.Sprint(name))
	}
	return config, nil
}

func typed[T any](c *Config, name, what string, fallback *T, fits func(T) bool) (value T) {
	c.asked = append(c.asked, name)
	raw, there := c.fields[name]
	if !there {
		if fallback != nil {
			return *fallback
		}
		c.fail(&ConfigError{"", "missing field `" + name + "`"})
		return value
	}
	if json.Unmarshal(raw, &value) != nil || string(raw) == "null" || fits != nil && !fits(value) {
		c.fail(&ConfigError{name, "expected " + what + ", found " + string(raw)})
	}
	return value
}

func (c *Config) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// Has says whether there is a field.
func (c *Config) Has(name string) bool {
	c.asked = append(c.asked, name)
	_, there := c.fields[name]
	return there
}

// String is a field that has to be text.
func (c *Config) String(name string) string { return typed[string](c, name, "a string", nil, nil) }

// StringOr is a field that is text where it is there.
func (c *Config) StringOr(name, fallback string) string {
	return typed(c, name, "a string", &fallback, nil)
}

func whole(value float64) bool { return value == math.Trunc(value) }

// Int is a field that has to be an integer.
func (c *Config) Int(name string) int64 {
	return int64(typed[float64](c, name, "an integer", nil, whole))
}

// IntOr is a field that is an integer where it is there.
func (c *Config) IntOr(name string, fallback int64) int64 {
	number := float64(fallback)
	return int64(typed(c, name, "an integer", &number, whole))
}

// Float is a field that has to be a number.
func (c *Config) Float(name string) float64 { return typed[float64](c, name, "a number", nil, nil) }

// BoolOr is a field that is true or false where it is there.
func (c *Config) BoolOr(name string, fallback bool) bool {
	return typed(c, name, "true or false", &fallback, nil)
}

func (c *Config) done() error {
	for _, name := range c.order {
		if c.err == nil && !slices.Contains(c.asked, name) {
			hint := "this operator takes none"
			if len(c.asked) > 0 {
				hint = "expected `" + strings.Join(c.asked, "` or `") + "`"
			}
			return &ConfigError{name, "unknown field `" + name + "`, " + hint}
		}
	}
	return c.err
}
