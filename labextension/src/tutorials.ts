import type { JupyterFrontEnd } from '@jupyterlab/application';
import { ICommandPalette, Notification } from '@jupyterlab/apputils';
import type { ILauncher } from '@jupyterlab/launcher';

import type { Api } from './api/client';
import { clip } from './format';
import { markIcon } from './icons';

const OPEN = 'truststram-lab:open-tutorial';

/** Adds a launcher card and a palette entry for each tutorial that the server has. */
export async function addTutorials(
  app: JupyterFrontEnd,
  api: Api,
  launcher: ILauncher,
  palette: ICommandPalette | null
): Promise<void> {
  app.commands.addCommand(OPEN, {
    label: args => (args['title'] ? clip(String(args['title']), 80) : 'Open a Tutorial'),
    caption: 'Copies the tutorial beside your files, and opens the copy',
    icon: markIcon,
    execute: args => open(app, api, String(args['name']))
  });
  let found;
  try {
    found = await api.tutorials();
  } catch (error) {
    // The panel says what is wrong with the server; the launcher just has no cards.
    console.warn(`TrustStram has no tutorials to offer: ${(error as Error).message}`);
    return;
  }
  found.forEach(({ name, title }, rank) => {
    const args = { name, title };
    launcher.add({ command: OPEN, args, category: 'TrustStram', rank });
    palette?.addItem({ command: OPEN, args, category: 'TrustStram' });
  });
}

async function open(app: JupyterFrontEnd, api: Api, name: string): Promise<void> {
  try {
    const { path } = await api.copyTutorial(name);
    await app.commands.execute('docmanager:open', { path });
  } catch (error) {
    Notification.error((error as Error).message, { autoClose: 8000 });
  }
}
