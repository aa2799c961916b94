package wasmill

// Column is rows of bytes: row i is Data[Ends[i-1]:Ends[i]].
type Column struct {
	Ends []uint32
	Data []byte
}

// Row is one row.
func (c *Column) Row(i int) []byte {
	if i >= len(c.Ends) {
		return nil
	}
	var start uint32
	if i > 0 {
		start = c.Ends[i-1]
	}
	return c.Data[start:c.Ends[i]]
}

// Push appends a row.
func (c *Column) Push(row []byte) {
	c.Data = append(c.Data, row...)
	c.Ends = append(c.Ends, uint32(len(c.Data)))
}

func bit(words []uint64, row int) bool { return words[row/64]>>(row%64)&1 == 1 }
