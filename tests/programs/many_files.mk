# Makes C files, compiles them by as many compilers as make has jobs, links them, and runs the program.

CFLAGS = -O2 -g
NUMBERS = 1 2 3 4 5 6 7 8

check: program
	@cksum part*.o | awk '{ print $$1, $$2, $$3 }'
	@./program

program: $(NUMBERS:%=part%.o) main.o
	$(CC) -o $@ $^

main.c:
	{ for n in $(NUMBERS); do echo "unsigned part$$n(unsigned);"; done; \
	  echo '#include <stdio.h>'; echo 'int main(void) { unsigned x = 1;'; \
	  for n in $(NUMBERS); do echo "x = part$$n(x);"; done; \
	  printf '%s\n' 'printf("%u\n", x); return 0; }'; } > $@

part%.c:
	awk -v part=$* 'BEGIN { \
	  for (i = 0; i < 120; i++) \
	    printf "static unsigned f%d(unsigned x) { for (unsigned i = 0; i < %d; i++) { x = x * %du + i; if (x %% %d == 1) x ^= x >> %d; } return x; }\n", i, i % 17 + 3, i * 7919 + part, i % 13 + 2, i % 11 + 1; \
	  printf "unsigned part%d(unsigned x) {\n", part; \
	  for (i = 0; i < 120; i++) printf "x += f%d(x);\n", i; \
	  print "return x; }" }' > $@

clean:
	rm -f program *.o *.c

.PHONY: check clean
.SECONDARY:
