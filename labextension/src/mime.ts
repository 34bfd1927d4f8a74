import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { Widget } from '@lumino/widgets';

import type { Child } from './mime/dom';
import { h, line } from './mime/dom';
import { IPredictionData, predictionView } from './mime/prediction';
import { IRunData, runView } from './mime/run';

/**
 * After text/html (50), before plain text (120).
 *
 * A card's HTML is the product: it is saved in full, while its data are cut to 10 kB. So the HTML
 * stays what a notebook shows, and these views serve where there are only data: files, and
 * outputs that were stripped of their HTML.
 */
const RANK = 80;

class View<T> extends Widget implements IRenderMime.IRenderer {
  constructor(
    private _type: string,
    private _draw: (data: T) => Child[]
  ) {
    super();
    this.addClass('ts-mime');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const data = model.data[this._type];
    let parts: Child[];
    try {
      parts = this._draw(data as unknown as T);
    } catch (error) {
      // The data come from a file that anybody may have written.
      const words = `These data are not what their type says: ${(error as Error).message}.`;
      parts = [line(words), h('pre', {}, JSON.stringify(data, null, 2))];
    }
    this.node.replaceChildren(...parts);
  }
}

function extension<T>(kind: string, title: string, draw: (data: T) => Child[]): IRenderMime.IExtension {
  const mime = `application/vnd.truststram.${kind}+json`;
  const fileType = `truststram-${kind}`;
  return {
    id: `truststram-lab:${kind}`,
    rendererFactory: {
      safe: true,
      mimeTypes: [mime],
      createRenderer: () => new View(mime, draw)
    },
    rank: RANK,
    dataType: 'json',
    fileTypes: [
      {
        name: fileType,
        displayName: title,
        extensions: [`.ts${kind}.json`],
        mimeTypes: [mime],
        fileFormat: 'text'
      }
    ],
    documentWidgetFactoryOptions: {
      name: title,
      primaryFileType: fileType,
      fileTypes: [fileType, 'json'],
      defaultFor: [fileType]
    }
  };
}

const extensions: IRenderMime.IExtension[] = [
  extension<IRunData>('run', 'TrustStram Run', runView),
  extension<IPredictionData>('prediction', 'TrustStram Prediction', predictionView)
];

export default extensions;
