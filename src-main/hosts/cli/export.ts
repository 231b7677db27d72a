import type { Command } from 'commander';
import { type Prices, parsePrice } from '../../contract/devices.ts';
import { expected } from '../../contract/input-error.ts';
import { type ExportFormat, exportFormats } from '../../contract/session.ts';
import { choiceOption, print } from './output.ts';
import { type Session, tellDamage } from './session.ts';

export const addExport = (program: Command, session: Session): Command =>
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
    .addHelpText('after', '\nExit code 3: lines of the session were damaged; all that is whole is written.')
    .action(async (path: string, { format, price = {} }: { format: ExportFormat; price?: Prices }) => {
      if (format === 'parquet' && process.stdout.isTTY)
        throw expected('a file', 'stdout', 'a terminal: add > FILE.parquet');
      const { content, damage } = await session.profiler.exportSession(path, format, price);
      tellDamage(session, damage);
      await print(content);
    });
