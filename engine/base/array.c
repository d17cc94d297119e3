/* SPDX-License-Identifier: MIT */
#include "talos/array.h"

#include <string.h>

#include "talos/alloc.h"

bool talos_array_grow(void *items, uint32_t count, uint32_t *room, uint32_t first,
		      size_t element_bytes)
{
	uint32_t more = *room ? *room * 2 : first;
	void *p;

	if (count < *room)
		return true;
	if (more < *room) /* past 32 bits */
		return false;
	memcpy(&p, items, sizeof(p)); /* a pointer to some type: not ours to alias */
	p = talos_realloc(p, (size_t)more * element_bytes);
	if (!p)
		return false;
	memcpy(items, &p, sizeof(p));
	*room = more;
	return true;
}
