/* SPDX-License-Identifier: MIT */
/* Arrays out of talos_malloc() that grow as they fill. */
#ifndef TALOS_ARRAY_H
#define TALOS_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Room for one more element in the array at *@items, which has @count and room
 * for *@room of @element_bytes each; grown to twice that, @first for the first
 * one. False: no memory, and nothing has changed. Use the macro, which knows the
 * element's size: @items is an array's name, @room a uint32_t's.
 */
bool talos_array_grow(void *items, uint32_t count, uint32_t *room, uint32_t first,
		      size_t element_bytes);
#define talos_array_room(items, count, room, first) \
	talos_array_grow(&(items), (count), &(room), (first), sizeof(*(items)))

#endif
