# SPDX-License-Identifier: MIT
# Other interpreters, and a compiler of traces.
python3 "$1/work.py"
luajit "$1/work.lua"
luajit -O3 -Ohotloop=2 -Ohotexit=2 "$1/work.lua"
perl -e '
	my ($v, %seen) = (1);
	for my $i (1 .. 60000) {
		$v = ($v * 1103515245 + 12345) % 2147483648;
		my $w = sprintf("%x-%d", $v, $i % 17);
		$seen{$1} += $i if $w =~ /^([a-f]+\d).*-(?:3|1\d)$/;
	}
	print join(",", map { "$_=$seen{$_}" } (sort keys %seen)[0 .. 20]), "\n";
	my $code = join(";", map { "\$v = (\$v + $_ * \$v) % 1000003" } 1 .. 2000);
	eval $code; print "$v\n";
'
