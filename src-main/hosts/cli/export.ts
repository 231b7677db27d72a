import type { Command } from 'commander';
import { type Prices, parsePrice } from '../../contract/devices.ts';
import { expected } from '../../contract/input-error.ts';
import { type ExportFormat, exportFormats } from '../../contract/session.ts';
import { choiceOption, print, say } from './output.ts';
import type { Session } from './session.ts';

export const addExport = (program: Command, { profiler }: Session): Command =>
  program
    .command('export')
    .description('write the points of a session for other programs and for people, to stdout')
    .argument('<session>', 'session file, *.fmqa')
    .requiredOption('--format <format>', exportFormats.join(', '), choiceOption('--format', exportFormats))
    .option(
      '--price <price>',
      'of an hour of a device, in your money, for tokens per unit of money: PRICE, or DEVICE=PRICE; repeatable',
      (text: string, before: Prices = {}): Prices => ({ ...before, ...Object.fromEntries([parsePrice(text)]) }),
    )
    .action(async (path: string, { format, price = {} }: { format: ExportFormat; price?: Prices }) => {
      if (format === 'parquet' && process.stdout.isTTY)
        throw expected('a file', 'stdout', 'a terminal: add > FILE.parquet');
      const { content, lost } = await profiler.exportSession(path, format, price);
      if (lost.length > 0) say(`${path}: damaged and left out: line ${lost.join(', ')}`);
      await print(content);
    });
