// Package wasmill is for operators of Wasmill in Go.
//
// A plugin is a package with a variable Plugin:
//
//	var Plugin = wasmill.Operator(func() wasmill.Handler { return &count{} })
//
//	type count struct{ seen *wasmill.Value[uint64] }
//
//	func (c *count) Open(_ *wasmill.Config, setup *wasmill.Setup) error {
//		c.seen = wasmill.NewValue(setup, "seen", wasmill.U64)
//		return nil
//	}
//
//	func (c *count) Event(event wasmill.Event, ctx *wasmill.Context) error {
//		n := c.seen.GetOr(0) + 1
//		c.seen.Set(n)
//		ctx.EmitText(strconv.FormatUint(n, 10))
//		return nil
//	}
//
// An error of Event rejects the event: it goes to the dead letters with the error's text, and what it
// had changed and emitted is undone. So does a panic, with the place it came from.
package wasmill
