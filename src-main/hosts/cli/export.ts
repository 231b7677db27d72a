import type { Command } from 'commander';
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
    .action(async (path: string, { format }: { format: ExportFormat }) => {
      if (format === 'parquet' && process.stdout.isTTY)
        throw expected('a file', 'stdout', 'a terminal: add > FILE.parquet');
      const { content, lost } = await profiler.exportSession(path, format);
      if (lost.length > 0) say(`${path}: damaged and left out: line ${lost.join(', ')}`);
      await print(content);
    });
